"""``gpo submit``: runs as jobs on a Ray cluster or as RayJobs on Kubernetes."""
