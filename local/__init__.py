"""The whole stack as processes on this machine: ``python -m local run|start|stop|status|clean``."""
