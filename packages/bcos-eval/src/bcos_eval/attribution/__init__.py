"""Attribution methods behind one protocol."""
