"""What the jobs share: arguments, settings, the Spark session, the summary line, fencing."""
