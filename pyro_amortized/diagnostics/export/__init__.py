"""Results for ArviZ."""
