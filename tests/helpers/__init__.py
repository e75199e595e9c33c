"""What tests share: tiny models and data, folders of other formats, golden models, processes."""
