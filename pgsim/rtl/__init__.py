"""The machine in SystemVerilog, and its co-simulation against the engines."""
