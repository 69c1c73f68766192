"""What a verdict looks like: JSON records (`record`), plain text (`text`) and the evidence page (`page`)."""
