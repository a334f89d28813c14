"""Airflow DAGs of Rankmill: wiring only. Jobs do the work, each in a process of its own."""
