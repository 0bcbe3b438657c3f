"""Random effects of groups of individuals, such as studies or centres."""
