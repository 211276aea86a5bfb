"""The commands of the `holotype` command line, one module a group; `holotype_conformance.cli` gathers them."""
