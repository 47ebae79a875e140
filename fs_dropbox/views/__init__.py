"""What is seen at a path besides files as they are: documents as exports, earlier versions, shared folders, links."""
