"""Neural recordings as datasets for Synicix, and a simulator whose noise ceiling is known in closed form."""
