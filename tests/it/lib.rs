//! Nothing: the package exists for its integration binary.
