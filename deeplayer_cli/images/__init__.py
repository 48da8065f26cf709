"""Images: decoding within limits, and threads that load images ahead of the model."""
