"""`fedmedclip doctor`: is this box fit for its work?"""
