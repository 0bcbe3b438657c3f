"""Files of every format that there has been, in folders that the script ``write`` made."""
