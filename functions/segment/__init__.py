"""Stage two: where the subject is. One piece of work on three hosts: Lambda, an ECS worker, a SageMaker endpoint."""
