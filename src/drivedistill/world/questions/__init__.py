"""Ground truth to questions: every answer is a function of the logged drive and of what the cameras can see."""
