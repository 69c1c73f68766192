"""How the embedded zoo is drawn, trained and exported: small generators, genuinely trained, genuinely diffusers."""
