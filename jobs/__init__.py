"""The jobs: one file each, runnable with spark-submit or python, importable for tests."""
