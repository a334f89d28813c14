"""The offline feature store: sources, Iceberg tables, feature views, point-in-time samples, labels."""
