"""TODO-LEAD: module map."""
