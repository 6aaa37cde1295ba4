"""A lab whose task is as small as a task can be: what is left of its time is the pipeline's."""
