"""Why a score is what it is: heat of the networks, and what each adds to the fused score."""
