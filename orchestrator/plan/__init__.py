"""What will be sent: batch arithmetic, the DeepSpeed dict, resources, the LaunchPlan. No torch."""
