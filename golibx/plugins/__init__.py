"""The plugins that come with golibx. They use what every plugin can use, and nothing else."""
