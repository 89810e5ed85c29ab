"""What is made from scores and sets: audio (render, farm), timelines, scores, checks."""
