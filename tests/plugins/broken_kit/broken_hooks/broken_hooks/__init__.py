"""A plugin that can be imported and is wrong in every other way."""
