//! YAML and JSON in Gateway API and tulle.dev kinds, checked and translated to the model, with diagnostics that name object, field, line and remedy.
