"""imp: weights and the code that makes them: render, train_codec, train_flow, evaluate, export."""
