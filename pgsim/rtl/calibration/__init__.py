"""What the parts of the machine cost: its RTL synthesised to a cell library, toggles times the energies of cells."""
