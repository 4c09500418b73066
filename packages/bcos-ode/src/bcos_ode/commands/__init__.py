"""The commands of ``bcos-ode``, a file each. Heavy libraries load inside them: ``--help`` must not wait."""
