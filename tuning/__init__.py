"""Search of the loss weights against validation F1, with KerasTuner."""
