"""Draw the training pictures of the embedded zoo, train its small generators, and export them from diffusers pipelines."""
