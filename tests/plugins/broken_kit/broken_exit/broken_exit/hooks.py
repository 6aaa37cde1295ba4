"""Ends the program while it is imported."""

import sys

sys.exit("this plugin does not run here")
