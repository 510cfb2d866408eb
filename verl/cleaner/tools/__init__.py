"""Tools that the model can call, and what lets the agent loop see what became of a call."""
