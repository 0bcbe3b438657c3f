"""Files of every format that there has been, in folders that ``write`` made; they never change."""
