-- Runs once, on an empty volume; POSTGRES_DB has made `airflow` already.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
CREATE DATABASE catalog;
