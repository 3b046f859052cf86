"""What evaluations and trainings look like: pages, tables, pictures, and files for programs."""
