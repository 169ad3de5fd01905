"""Reading back what an archive holds, and comparing it with everything that was recorded of it."""
