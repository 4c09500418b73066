"""The commands of ``bcos-vision``, a file each. Heavy libraries load inside them: ``--help`` must not wait."""
