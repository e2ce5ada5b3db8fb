"""A bounded cache on local disk for bytes of remote objects."""
