"""golibx in servers, task queues and other programs that run what others wrote."""
