"""Beyond where: do explanations say what the network does?"""
