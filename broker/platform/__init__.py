"""The boundary to telecom platforms: what any platform can do, and one driver per vendor."""
