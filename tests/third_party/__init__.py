"""Third-party distributions, pip-installed into a virtual environment of their own and used as their owners would."""
