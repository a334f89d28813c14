"""The offline feature store: sources, Iceberg tables, feature views, samples in time, labels."""
