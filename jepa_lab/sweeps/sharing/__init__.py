"""How several trials share a machine: its CPU threads, its GPUs, their memory."""
