"""Meta-prompts on real models: which text makes a language model write better prompts."""
