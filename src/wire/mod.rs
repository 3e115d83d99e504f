//! What bytes mean: one header a file, checked views, the quote reader, dissection.
