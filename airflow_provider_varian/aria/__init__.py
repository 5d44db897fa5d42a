"""What is true of ARIA: its profile, plans, machine-QA images, and what a machine is expected to hold."""
