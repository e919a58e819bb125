"""What every run needs: streams, journals, processes, plug-ins, seeds."""
