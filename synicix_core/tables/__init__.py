"""The tables of a pipeline. Each is built per connection by `synicix_core.tables.schema.bind`."""
