//! The planner on made-up devices.
